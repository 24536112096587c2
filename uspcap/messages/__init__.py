"""Messages out of packets: IP fragments and TCP streams put together, and what lies in them."""
