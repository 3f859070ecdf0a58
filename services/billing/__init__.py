"""Billing: what sessions cost, and what stations are told of it."""
