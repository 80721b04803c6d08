"""What all strategies have in common: a name, by which the group's members know them."""


class AbstractPartitionAssignor:
    """Base of the strategies.  Others than pylog's own cannot be used."""

    name: str = ""
