"""Who works on jobs: one attempt after another, held by a lease, until each is over."""
