# syntax=docker/dockerfile:1

# The system's OpenSSL instead of a vendored one: it builds quicker, and Debian keeps it up to date. With aws-sdk-ec2 the
# build takes up to 7 GB of memory.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --release --no-default-features --features aws --bin rollcall \
    && cp target/release/rollcall /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/rollcall /usr/local/bin/
# Any number does; nothing is written to disk.
USER 65532:65532
EXPOSE 9464
ENTRYPOINT ["rollcall"]
CMD ["--help"]
