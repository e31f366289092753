"""Prints the committed records of a topic as CloudEvents, one JSON object a line."""
import base64
import json
import sys

from cloudevents.kafka import KafkaMessage, from_binary
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

servers, topic, want = sys.argv[1], sys.argv[2], int(sys.argv[3])
consumer = Consumer({
    "bootstrap.servers": servers, "group.id": "reader", "isolation.level": "read_committed", "enable.auto.commit": False,
})
partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
seen = 0
while seen < want:
    message = consumer.poll(60)
    if message is None:
        raise SystemExit("nothing came within a minute")
    if message.error():
        raise SystemExit(message.error())
    seen += 1
    event = from_binary(
        KafkaMessage(headers=dict(message.headers()), key=message.key(), value=message.value()), data_unmarshaller=lambda data: data
    )
    print(json.dumps({
        "partition": message.partition(), "offset": message.offset(), "key": message.key().decode(),
        "attributes": {name: str(value) for name, value in event.get_attributes().items()},
        "data": base64.b64encode(event.data).decode(),
    }))
consumer.close()
