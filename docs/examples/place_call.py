import json
import sys

from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": sys.argv[1], "enable.idempotence": True})
command = {
    "specversion": "1.0",
    "type": "dialer.command.place_call.v1",
    "source": "/campaigns/rx-refill",
    "id": "refill-000123",
    "data": {
        "request_id": "refill-000123",
        "campaign_id": "rx-refill",
        "to": "+12125550100",
        "variables": {"first_name": "Ann", "store": "Main Street"},
    },
}
errors = []
producer.produce(
    "dialer.commands",
    key="refill-000123",
    value=json.dumps(command),
    on_delivery=lambda error, _: errors.append(error),
)
producer.flush()
if errors != [None]:
    sys.exit(f"not accepted: {errors}")
