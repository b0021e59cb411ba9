#!/usr/bin/env python3
"""Print every record of a topic as one JSON line, in the way of clients that know nothing of Rollcall.

{"partition", "offset", "timestamp", "key", "headers": {…}, "value"}

All partitions are read, each to where it ended when the reading began. The first bytes of a value tell its encoding:
Confluent's wire format is decoded by Confluent's own deserializer with the schema that the registry has under the ID;
Avro single-object encoding by fastavro with the --schema whose CRC-64-AVRO fingerprint it names; `{` is JSON. No value
is null. Avro timestamps are printed as milliseconds since 1970, bytes as hexadecimal digits.
"""

import argparse
import datetime
import io
import json
import pathlib
import sys

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

SINGLE_OBJECT = b"\xc3\x01"
TIMEOUT_SECONDS = 30


class Decoder:
    """Turns values into Python objects."""

    def __init__(self, registry, schema_files):
        self.confluent = AvroDeserializer(SchemaRegistryClient({"url": registry})) if registry != "none" else None
        self.schemas = dict(self._load(file) for file in schema_files)

    @staticmethod
    def _load(file):
        schema = json.loads(file.read_text(encoding="utf-8"))
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        return fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"), fastavro.parse_schema(schema)

    def decode(self, topic, value):
        """The value, whichever encoding it has."""
        if value is None:
            return None
        if value[:1] == b"{":
            return json.loads(value)
        if value[:2] == SINGLE_OBJECT:
            return self._single_object(value)
        if value[:1] == b"\0" and self.confluent:
            return self.confluent(value, SerializationContext(topic, MessageField.VALUE))
        raise ValueError(f"unknown encoding, the value starts with {value[:10].hex()}")

    def _single_object(self, value):
        fingerprint = value[2:10].hex()
        if fingerprint not in self.schemas:
            given = ", ".join(self.schemas) or "none"
            raise ValueError(f"no --schema has the fingerprint {fingerprint}; given: {given}")
        body = io.BytesIO(value[10:])
        decoded = fastavro.schemaless_reader(body, self.schemas[fingerprint], None)
        if rest := body.read():
            raise ValueError(f"{len(rest)} bytes are left after the value")
        return decoded


def plain(value):
    """What JSON has no type for."""
    if isinstance(value, datetime.datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"no JSON for {type(value)}")


def text(value):
    """Bytes of a key or a header as text, or as hexadecimal digits where they are no UTF-8."""
    try:
        return value.decode("utf-8") if value is not None else None
    except UnicodeDecodeError:
        return value.hex()


def headers_of(message):
    """The headers as an object; a name that comes several times has a list."""
    found = {}
    for name, value in message.headers() or []:
        found.setdefault(name, []).append(text(value))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def records(args):
    """Every record up to where each partition ended at the start; no consumer group is joined."""
    consumer = Consumer(
        {
            "bootstrap.servers": args.bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": args.isolation,
            "auto.offset.reset": "error",
        }
    )
    try:
        topic = consumer.list_topics(args.topic, timeout=TIMEOUT_SECONDS).topics[args.topic]
        if topic.error:
            raise KafkaException(topic.error)
        ends = {}
        starts = []
        for number in topic.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(args.topic, number), timeout=TIMEOUT_SECONDS)
            if low < high:
                ends[number] = high
                starts.append(TopicPartition(args.topic, number, low))
        consumer.assign(starts)
        while ends:
            message = consumer.poll(TIMEOUT_SECONDS)
            if message is None:
                raise TimeoutError(f"no record within {TIMEOUT_SECONDS} s; partitions not yet at their end: {ends}")
            number = message.partition()
            if message.error():
                # The end comes as an event of its own: markers of transactions take offsets, but no record shows them.
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
                ends.pop(number, None)
            elif number in ends and message.offset() < ends[number]:
                yield message
            else:
                ends.pop(number, None)
    finally:
        consumer.close()


def as_record(message, decoder):
    """The record as it is printed."""
    try:
        value = decoder.decode(message.topic(), message.value())
    except Exception as failure:
        raise ValueError(f"partition {message.partition()}, offset {message.offset()}: {failure}") from failure
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "key": text(message.key()),
        "headers": headers_of(message),
        "value": value,
    }


def main():
    """Read, decode and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of a broker")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--registry", default="none", help="URL of the schema registry, or none")
    parser.add_argument("--schema", action="append", default=[], type=pathlib.Path, help="Avro schema of a value")
    parser.add_argument("--isolation", default="read_committed", choices=["read_committed", "read_uncommitted"])
    args = parser.parse_args()
    decoder = Decoder(args.registry, args.schema)
    try:
        for message in records(args):
            print(json.dumps(as_record(message, decoder), default=plain, ensure_ascii=False))
    except (KafkaException, ValueError, TimeoutError) as failure:
        sys.exit(f"read_events.py: topic {args.topic}: {failure}")


if __name__ == "__main__":
    main()
