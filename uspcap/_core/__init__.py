"""What compiled modules of several packages share: columns, headers, and arithmetic defined for every number."""
