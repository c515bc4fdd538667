"""The policy that Xen itself enforces (XSM/FLASK): which domains may share memory and events. From the channels of an
assembly."""
