"""The RAG API: documents that people bring in by HTTP, and questions about them."""
