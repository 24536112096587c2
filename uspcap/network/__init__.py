"""Network interfaces as the kernel tells of them: links, addresses, routes, who uses them, what becomes of them."""
