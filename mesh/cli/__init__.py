"""The command `mesh`; it starts in `mesh.cli.main`."""
