"""What runs inside every domain, and all that a component may import of the appliance."""
