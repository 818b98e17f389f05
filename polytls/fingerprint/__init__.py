"""What a ClientHello gives away about who sent it: JA3, JA4 and a readable report (pure, layer L2)."""
