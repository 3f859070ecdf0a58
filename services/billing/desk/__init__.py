"""The desk: what stations ask of billing and are told by it, besides the events of their sessions.

It is a processor of its own, so that neither waits for the other: sessions are priced in large batches, and the desk
answers at once.
"""
