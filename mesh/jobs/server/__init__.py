"""The store's own server: a nats-server on loopback, its folder, its lock, its room on the disk."""
