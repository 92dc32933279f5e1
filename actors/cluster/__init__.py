"""Which nodes and servers form the cluster: registration, registry, formation, migration of stores."""
