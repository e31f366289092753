import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

// Reader prints the committed records of a topic, one a line, with tabs between partition, the partition that Java's default partitioner
// has for the key, offset, key, value and headers. What is bytes is in base64.
public class Reader {
    public static void main(String[] args) {
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        p.put("isolation.level", "read_committed");
        p.put("auto.offset.reset", "earliest");
        p.put("key.deserializer", ByteArrayDeserializer.class.getName());
        p.put("value.deserializer", ByteArrayDeserializer.class.getName());
        int want = Integer.parseInt(args[2]);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(p)) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (PartitionInfo info : consumer.partitionsFor(args[1])) {
                partitions.add(new TopicPartition(args[1], info.partition()));
            }
            consumer.assign(partitions);
            for (int seen = 0; seen < want; ) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    seen++;
                    StringBuilder line = new StringBuilder();
                    line.append(r.partition()).append('\t').append(BuiltInPartitioner.partitionForKey(r.key(), partitions.size()));
                    line.append('\t').append(r.offset()).append('\t').append(text(r.key())).append('\t').append(text(r.value()));
                    for (Header h : r.headers()) {
                        line.append('\t').append(text(h.key().getBytes(StandardCharsets.UTF_8))).append('=').append(text(h.value()));
                    }
                    System.out.println(line);
                }
            }
        }
    }

    private static String text(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }
}
