{{/* Security of a pod of ours: what the level `restricted` asks, unless the values say otherwise. */}}
{{- define "model-server.podSecurity" -}}
{{- if kindIs "invalid" .Values.podSecurityContext -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 0
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- else -}}
{{ toYaml .Values.podSecurityContext }}
{{- end -}}
{{- end }}

{{- define "model-server.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where the platform is, and who we are there. */}}
{{- define "model-server.environment" -}}
env:
  - {name: CRISPLINE_PLATFORM, value: /etc/crispline/platform.json}
  - {name: HOME, value: /tmp}
  {{- if .Values.objectStore.endpoint }}
  - {name: AWS_ENDPOINT_URL, value: {{ .Values.objectStore.endpoint | quote }}}
  {{- if hasPrefix "http://" .Values.objectStore.endpoint }}
  - {name: AWS_ALLOW_HTTP, value: "true"}
  {{- end }}
  {{- end }}
  - {name: AWS_REGION, value: {{ .Values.objectStore.region | quote }}}
  - {name: AWS_DEFAULT_REGION, value: {{ .Values.objectStore.region | quote }}}
  - name: POD_NAME
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}
{{- with .Values.objectStore.existingSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Mounts of a container that reaches the platform. */}}
{{- define "model-server.platformMounts" -}}
- {name: platform, mountPath: /etc/crispline, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.sharedVolume.existingClaim }}
- {name: shared, mountPath: {{ .Values.sharedVolume.mountPath }}}
{{- end }}
{{- end }}

{{/* Volumes behind those mounts. */}}
{{- define "model-server.platformVolumes" -}}
- name: platform
  configMap: {name: {{ .Values.platform.configMap }}}
- name: tmp
  emptyDir: {}
{{- with .Values.sharedVolume.existingClaim }}
- name: shared
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- end }}

{{/*
The pod of one predictor, the one and only: a component of a SeldonDeployment or the template of a Deployment, where the forwarder stands
in the executor's place. Takes (dict "root" $ "predictor" <one of model-server.predictors>).

The model is the first container: the operator numbers the ports 9000, 9001, ... in the order of the containers.
*/}}
{{- define "model-server.podSpec" -}}
{{- $values := .root.Values -}}
{{- $deployment := eq $values.serving.mode "deployment" -}}
{{- $linger := add 2 (ternary $values.forwarder.lameDuckSeconds $values.seldon.executor.preStopSeconds $deployment) -}}
serviceAccountName: {{ include "model-server.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "model-server.podSecurity" .root | nindent 2 }}
{{- with $values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with $values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.scheduling.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.scheduling.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.scheduling.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.scheduling.spread }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "model-server.predictorSelector" (dict "root" $.root "predictor" $.predictor.name) | nindent 8 }}
  {{- end }}
{{- end }}
initContainers:
  - name: fetch-release
    image: {{ include "model-server.image" (dict "images" $values.images "image" $values.images.serving) }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    args:
      - components.model_server.fetch_release
      - --usecase={{ $values.usecase }}
      - --release={{ .predictor.release }}
      - --destination=/release/{{ .predictor.release }}
      - --timeout-seconds={{ $values.fetch.timeoutSeconds }}
    {{- include "model-server.environment" .root | nindent 4 }}
    securityContext:
      {{- include "model-server.containerSecurity" .root | nindent 6 }}
    resources:
      {{- toYaml $values.fetch.resources | nindent 6 }}
    volumeMounts:
      - {name: release, mountPath: /release}
      {{- include "model-server.platformMounts" .root | nindent 6 }}
containers:
  - name: model
    image: {{ include "model-server.image" (dict "images" $values.images "image" $values.images.serving) }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    args:
      - components.model_server.seldon
      - --release-folder=/release/{{ .predictor.release }}
      - --host=0.0.0.0
      - --port=9000
      - --threads={{ $values.serving.threads }}
      {{- with $values.featureServer.url }}
      - --feature-server-url={{ . }}
      {{- end }}
      {{- with $values.serving.momentSkew }}
      - --moment-skew={{ . }}
      {{- end }}
    env:
      - {name: HOME, value: /tmp}
    ports:
      - {name: http, containerPort: 9000, protocol: TCP}
    # The model outlives what stands in front of it: a request that is being forwarded is answered.
    lifecycle:
      preStop: {exec: {command: [sleep, {{ $linger | quote }}]}}
    startupProbe:
      httpGet: {path: /health/ready, port: 9000}
      periodSeconds: 1
      failureThreshold: 120
    readinessProbe:
      httpGet: {path: /health/ready, port: 9000}
      periodSeconds: 5
      timeoutSeconds: 3
    livenessProbe:
      httpGet: {path: /health/live, port: 9000}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    securityContext:
      {{- include "model-server.containerSecurity" .root | nindent 6 }}
    resources:
      {{- toYaml $values.model.resources | nindent 6 }}
    volumeMounts:
      - {name: release, mountPath: /release, readOnly: true}
      - {name: tmp, mountPath: /tmp}
  {{- if $deployment }}
  - name: forwarder
    image: {{ include "model-server.image" (dict "images" $values.images "image" $values.images.serving) }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    args:
      - components.model_server.forwarder
      - --host=0.0.0.0
      - --port=8000
      - --upstream=http://127.0.0.1:9000
      {{- if $values.sidecar.enabled }}
      - --sink=http://127.0.0.1:8080/
      {{- end }}
      - --usecase={{ include "model-server.name" .root }}
      - --predictor={{ .predictor.name }}
      - --model=model
      - --lame-duck-seconds={{ $values.forwarder.lameDuckSeconds }}
      {{- if .shadow }}
      - --shadow=http://{{ include "model-server.host" (dict "root" .root "service" (include "model-server.predictorName" (dict "root" .root "predictor" "shadow"))) }}:8000
      {{- end }}
    env:
      - {name: HOME, value: /tmp}
      - name: POD_NAMESPACE
        valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}
    ports:
      - {name: api, containerPort: 8000, protocol: TCP}
    startupProbe:
      httpGet: {path: /live, port: 8000}
      periodSeconds: 1
      failureThreshold: 60
    readinessProbe:
      httpGet: {path: /ready, port: 8000}
      periodSeconds: 2
      timeoutSeconds: 3
    livenessProbe:
      httpGet: {path: /live, port: 8000}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    securityContext:
      {{- include "model-server.containerSecurity" .root | nindent 6 }}
    resources:
      {{- toYaml $values.forwarder.resources | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
  {{- end }}
  {{- if $values.sidecar.enabled }}
  - name: sidecar
    image: {{ include "model-server.image" (dict "images" $values.images "image" $values.images.monitoring) }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    # Without the image's own init: the first process is the supervisor, which nothing inside of the container can kill.
    command: [python, -m]
    args:
      - components.monitoring.sidecar.supervised
      - --host=0.0.0.0
      - --port=8080
      - --spool=/spool
      - --usecase={{ $values.usecase }}
      - --deployment={{ include "model-server.name" .root }}
      - --move-seconds={{ $values.sidecar.moveSeconds }}
      {{- if not (kindIs "invalid" $values.sidecar.triggerUrl) }}
      - --trigger-url={{ $values.sidecar.triggerUrl }}
      {{- end }}
    {{- include "model-server.environment" .root | nindent 4 }}
    ports:
      - {name: events, containerPort: 8080, protocol: TCP}
    # It outlives what sends it events.
    lifecycle:
      preStop: {exec: {command: [sleep, {{ add 4 $linger | quote }}]}}
    # Only whether the port is open. Its first process restarts the server behind the port, so there is no liveness probe: a container that is
    # restarted takes the pod out of service, predictions included.
    startupProbe:
      tcpSocket: {port: 8080}
      periodSeconds: 2
      failureThreshold: 60
    readinessProbe:
      tcpSocket: {port: 8080}
      periodSeconds: 10
      failureThreshold: 3
    securityContext:
      {{- include "model-server.containerSecurity" .root | nindent 6 }}
    resources:
      {{- toYaml $values.sidecar.resources | nindent 6 }}
    volumeMounts:
      - {name: spool, mountPath: /spool}
      {{- include "model-server.platformMounts" .root | nindent 6 }}
  {{- end }}
volumes:
  - name: release
    emptyDir: {}
  {{- if $values.sidecar.enabled }}
  - name: spool
    emptyDir: {sizeLimit: {{ $values.sidecar.spoolSize }}}
  {{- end }}
  {{- include "model-server.platformVolumes" .root | nindent 2 }}
{{- end }}

{{/* Metrics of a HorizontalPodAutoscaler, the same list in a SeldonDeployment's hpaSpec and in an object of its own. */}}
{{- define "model-server.hpaMetrics" -}}
- type: ContainerResource
  containerResource:
    name: cpu
    container: model
    target: {type: Utilization, averageUtilization: {{ .Values.autoscaling.cpuPercent }}}
{{- end }}

{{/* What a ScaledObject and a SeldonDeployment's kedaSpec have in common. */}}
{{- define "model-server.keda" -}}
pollingInterval: {{ .Values.autoscaling.keda.pollingInterval }}
cooldownPeriod: {{ .Values.autoscaling.keda.cooldownPeriod }}
minReplicaCount: {{ .Values.autoscaling.minReplicas }}
maxReplicaCount: {{ .Values.autoscaling.maxReplicas }}
triggers:
  {{- toYaml .Values.autoscaling.keda.triggers | nindent 2 }}
{{- end }}
