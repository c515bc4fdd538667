"""`make demo`: a LAN, a Septum gateway, a WAN and a stock WireGuard peer, in namespaces that end with the demo."""
