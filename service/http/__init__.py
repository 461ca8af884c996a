"""What every route shares: the server, who may come in and how many, errors as problem documents, pages."""
