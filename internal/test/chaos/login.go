package chaos

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

// logins creates a user for each role that connects to Kafka, with the rights that docs/operations.md lists for it and no others.
func (r *run) logins(bootstrap string) map[Role]map[string]any {
	names := func(kind kmsg.ACLResourceType, prefix string, operations ...kmsg.ACLOperation) (rights []testserver.Right) {
		for _, o := range operations {
			rights = append(rights, testserver.Right{Operation: o, Type: kind, Name: prefix, Prefixed: true})
		}
		return rights
	}
	topics := func(prefix string, operations ...kmsg.ACLOperation) []testserver.Right {
		return names(kmsg.ACLResourceTypeTopic, prefix, operations...)
	}
	broker := r.kafka.Secured(r.t, bootstrap, r.prefix)
	all := make(map[Role]map[string]any)
	for role, rights := range map[Role][][]testserver.Right{
		RoleRelay: {
			topics(r.prefix+".", kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribeConfigs),
			topics(kafka.CheckpointTopic(r.prefix), kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationCreate),
			names(kmsg.ACLResourceTypeTransactionalId, r.prefix+".", kmsg.ACLOperationWrite),
		},
		RoleConsumer: {topics(r.prefix+".", kmsg.ACLOperationRead), names(kmsg.ACLResourceTypeGroup, r.prefix+".ledger", kmsg.ACLOperationRead)},
		RoleFed:      {topics(r.prefix+".", kmsg.ACLOperationRead), names(kmsg.ACLResourceTypeGroup, r.prefix+".fed", kmsg.ACLOperationRead)},
	} {
		var list []testserver.Right
		for _, some := range rights {
			list = append(list, some...)
		}
		all[role] = broker.User(r.t, string(role), list...)
	}
	return all
}
