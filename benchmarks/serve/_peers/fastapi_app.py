"""FastAPI on uvicorn (uvloop, httptools), two processes, one request at a time: what most people write."""

from fastapi import FastAPI, Request, Response
from predictor import Predictor

app = FastAPI()
predictor = Predictor()


@app.post("/inference")
async def inference(request: Request) -> Response:
    (answer,) = predictor([await request.body()])
    return Response(answer, media_type="application/json")
