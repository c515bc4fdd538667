"""What makes a box one that is administered from elsewhere: its authority, its identity, its first administrator."""
