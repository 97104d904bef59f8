"""When batches begin by themselves: due times, what is done about each, and the loop in every worker on jobs."""
