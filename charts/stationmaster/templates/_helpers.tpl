{{- define "stationmaster.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Names of what has no namespace: two releases may have the same name. */ -}}
{{- define "stationmaster.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "stationmaster.name" .) -}}
{{- end -}}

{{- define "stationmaster.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "stationmaster.labels" -}}
{{ include "stationmaster.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- define "stationmaster.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "stationmaster.name" . -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- /* The Secret with the operator's key, which the operator creates itself. */ -}}
{{- define "stationmaster.keySecret" -}}
{{- include "stationmaster.name" . }}-key
{{- end -}}

{{- /* Takes a dict of image and tag, the latter for images that name none. */ -}}
{{- define "stationmaster.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .tag) -}}
{{- end -}}
{{- end -}}
