"""How the service listens: processes, connections, bodies. The application behind is plain WSGI."""
