# syntax=docker/dockerfile:1

# For both architectures: docker buildx build --platform linux/amd64,linux/arm64 with a builder of each. The C libraries are
# compiled for the machine that builds; emulated it takes hours.

# The system's OpenSSL instead of a vendored one: it builds quicker, and Debian keeps it up to date. With aws-sdk-ec2 the
# build takes up to 7 GB of memory.
FROM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /build
COPY . .
# Crates and objects stay for the next build, those of each architecture by themselves.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,id=rollcall-target-${TARGETARCH},sharing=locked \
    cargo build --locked --release --no-default-features --features aws --bin rollcall \
    && cp target/release/rollcall /usr/local/bin/

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="rollcall" \
      org.opencontainers.image.description="Takes the roll of an EC2 fleet and publishes every change to Kafka, exactly once." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/rollcall /usr/local/bin/
# Any number does; nothing is written to disk.
USER 65532:65532
EXPOSE 9464
ENTRYPOINT ["rollcall"]
CMD ["--help"]
