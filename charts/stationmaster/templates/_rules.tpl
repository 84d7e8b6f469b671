{{- /*
What the operator may do where it runs sales. It reads no Secrets, and changes nothing but what it
made: a rule that would let it do more belongs to a feature that needs it.
*/ -}}
{{- define "stationmaster.rules" -}}
# To know the sales. Patching adds and removes the finalizer, and nothing else: the spec is the
# user's.
- apiGroups: [stationmaster.dev]
  resources: [trainsales]
  verbs: [get, list, watch, patch]
# To tell what it sees.
- apiGroups: [stationmaster.dev]
  resources: [trainsales/status]
  verbs: [get, patch, update]
# To own the objects below on behalf of a sale, where the cluster checks who may block a sale's
# deletion.
- apiGroups: [stationmaster.dev]
  resources: [trainsales/finalizers]
  verbs: [update]
# To run the nodes: a Deployment for each pool and role.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# To found the ledger: a Job that creates and checks the topics, and is run anew when it must.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# To tell nodes their settings, and to leave word of which ledger a deleted sale had.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# To let buyers and nodes find nodes.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# To keep drains from taking too many nodes at once.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# To keep all but the operator from the nodes' control ports.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# To find the nodes' addresses and read what the Job says at its end; to say which pods should go
# first when a fleet shrinks; to delete a dead node's pod, so that its replacement does not wait
# for the cluster to give the machine up.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
# To tell the user what happened.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
