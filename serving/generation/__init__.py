"""Text of the adapters: the batch engine here, or an endpoint elsewhere."""
