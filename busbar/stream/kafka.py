"""Kafka behind the runtime's interfaces: a producer and a consumer that live through what brokers do."""

from busbar.stream.kafka_consumer import KafkaConsumer
from busbar.stream.kafka_producer import KafkaProducer

__all__ = ["KafkaConsumer", "KafkaProducer"]
