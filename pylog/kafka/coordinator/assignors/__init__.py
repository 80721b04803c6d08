"""The strategies that a group's partitions are shared out by, as classes for partition_assignment_strategy."""
