"""Where kafka-python has what groups are coordinated with; here it has only the assignors' names."""
