"""What a host runs for others: sandboxes that outlive whoever asked for them, who may ask, and what is remembered. Nothing of HTTP."""
