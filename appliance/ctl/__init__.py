"""`septumctl`: boxes configured and looked at from elsewhere, over gRPC. What is signed is signed here."""
