"""Network interfaces as the kernel reports them: links, addresses, routes, who uses them, what becomes of them."""
