"""Where kafka-python has the strategy "sticky"."""
