"""The domain of the RAG API: windows of a text, its vectors, their collection, and how chunks are ordered."""
