"""Fetching by reference: `file:` under allowed roots, `http(s):` from allowed hosts, `s3:` from named buckets."""

from nodes.fetch.node import Fetch
from nodes.fetch.settings import Bucket

__all__ = ["Bucket", "Fetch"]
