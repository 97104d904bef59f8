"""Durable jobs over the graph of a gateway: the store, the workers, the services."""
