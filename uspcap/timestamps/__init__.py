"""Who stamps a frame: NIC set-up, the NIC's clock, and its conversion to UTC."""
