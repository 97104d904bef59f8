"""Where jobs are: NATS JetStream, and what is kept in it and how (see `mesh.jobs.store.job_store.streams`)."""
