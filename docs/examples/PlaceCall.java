import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class PlaceCall {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("acks", "all");
        String command = """
            {"specversion": "1.0", "type": "dialer.command.place_call.v1",
             "source": "/campaigns/rx-refill", "id": "refill-000124",
             "data": {"request_id": "refill-000124", "campaign_id": "rx-refill", "to": "+12125550101",
                      "variables": {"first_name": "Bert", "store": "Lake View"}}}""";
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>("dialer.commands", "refill-000124", command)).get();
        }
    }
}
