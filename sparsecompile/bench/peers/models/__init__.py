"""Where the models of the workloads come from."""
