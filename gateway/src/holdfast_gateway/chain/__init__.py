"""From here to the replicas: the balancers, the attempts, the answer that comes back."""
