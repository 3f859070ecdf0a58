"""The whole system on one machine: Kafka, PostgreSQL and every service, for people who try it and for the tests."""
