"""`make bench`: Septum, wireguard-go, OpenVPN and no tunnel, measured in turns in one world."""
