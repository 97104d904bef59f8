"""Who is told of a job's end: which targets are allowed, over HTTP or gRPC, signed, until they answer."""
