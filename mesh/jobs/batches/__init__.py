"""Batches as jobs: who looks after one, who runs its shards, the service and its client."""
