"""Consumer groups over one directory: members, what each of them consumes, and how far the group has come."""
