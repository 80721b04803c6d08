"""Speed of pylog beside other stores, measured in one interleaved run."""
