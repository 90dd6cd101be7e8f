"""A small server of Weaviate's protocol: its REST paths and its gRPC messages, over arrays in this process.

No Weaviate can be installed from packages. This one speaks with the real client through the real messages,
so what is tested is that ours asks the right things and reads the answers right; not that Weaviate's own
search is as its documentation says. It takes a collection without properties, given vectors and the metric
"dot".
"""

import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from weaviate.proto.v1 import aggregate_pb2, base_pb2, batch_pb2, search_get_pb2, weaviate_pb2_grpc

VERSION = "1.34.0"


class WeaviateServer(weaviate_pb2_grpc.WeaviateServicer):
    """Collections by name: their schema as it was sent, and a vector for each id."""

    def __init__(self) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self.vectors: dict[str, dict[str, np.ndarray]] = {}
        self.keys: set[str | None] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(self, self._grpc)
        serving = health.HealthServicer()
        serving.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(serving, self._grpc)
        self.port = self._http.server_address[1]
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()

    def BatchObjects(self, request: Any, context: Any) -> Any:
        for one in request.objects:
            data = one.vectors[0].vector_bytes if one.vectors else one.vector_bytes
            self.vectors[one.collection][one.uuid] = np.frombuffer(data, "<f4")
        return batch_pb2.BatchObjectsReply()

    def Aggregate(self, request: Any, context: Any) -> Any:
        count = len(self.vectors[request.collection])
        return aggregate_pb2.AggregateReply(
            single_result=aggregate_pb2.AggregateReply.Single(objects_count=count)
        )

    def Search(self, request: Any, context: Any) -> Any:
        stored = self.vectors[request.collection]
        ids = list(stored)
        if request.HasField("filters"):
            assert request.filters.operator == base_pb2.Filters.OPERATOR_CONTAINS_ANY
            assert request.filters.target.property == "_id"
            wanted = set(request.filters.value_text_array.values)
            ids = [one for one in ids if one in wanted]
        near = request.near_vector
        data = near.vectors[0].vector_bytes if near.vectors else near.vector_bytes
        query = np.array(struct.unpack(f"<{len(data) // 4}f", data), np.float32)
        distances = -(np.stack([stored[one] for one in ids]) @ query) if ids else np.empty(0)
        order = np.argsort(distances, kind="stable")[: request.limit]
        return search_get_pb2.SearchReply(
            results=[
                search_get_pb2.SearchResult(
                    metadata=search_get_pb2.MetadataResult(
                        id=ids[place],
                        id_as_bytes=UUID(ids[place]).bytes,
                        distance=float(distances[place]),
                        distance_present=request.metadata.distance,
                    )
                )
                for place in order
            ]
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.keys.add(self.headers["authorization"])
                name = self.path.rpartition("/")[2]
                if self.path == "/v1/meta":
                    self.reply(200, {"version": VERSION})
                elif self.path.startswith("/v1/schema/") and name in server.schemas:
                    self.reply(200, server.schemas[name])
                else:
                    self.reply(404, {})

            def do_POST(self) -> None:
                schema = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.schemas[schema["class"]] = schema
                server.vectors[schema["class"]] = {}
                self.reply(200, schema)

            def reply(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Tests print nothing."""

        return Handler
