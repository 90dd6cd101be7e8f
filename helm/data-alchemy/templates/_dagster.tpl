{{/* What webserver, daemon, code location and runs share. */}}

{{- define "data-alchemy.instanceEnv" -}}
{{ include "data-alchemy.secretEnv" (dict "name" "DAGSTER_PG_PASSWORD" "secret" (include "data-alchemy.secretName" .) "key" "POSTGRES_PASSWORD") }}
{{- end -}}

{{- define "data-alchemy.dagsterEnv" -}}
{{ include "data-alchemy.env" . }}
- name: ALCHEMY_ENGINE
  value: {{ .Values.engine.kind | quote }}
{{- with .Values.engine.sparkMaster }}
- name: SPARK_MASTER
  value: {{ . | quote }}
{{- end }}
- name: ALCHEMY_CYCLE_CRON
  value: {{ .Values.dagster.cycleCron | quote }}
{{ include "data-alchemy.instanceEnv" . }}
{{- end -}}

{{- define "data-alchemy.postgresHost" -}}
{{- if .Values.dagster.postgres.enabled -}}
{{- include "data-alchemy.componentName" (dict "root" . "component" "postgres") -}}
{{- else -}}
{{- required "dagster.postgres.enabled is false: give the address of your server in dagster.postgres.host" .Values.dagster.postgres.host -}}
{{- end -}}
{{- end -}}

{{/*
One Deployment of the pipeline image. Takes root, component, command, resources, port (optional), probes (YAML) and
loadsCode. What loads this project's code gets its environment and caches and the account of runs; webserver and daemon
only ask it over gRPC, so they get the right to launch runs and no key of the store or the LLM.
*/}}
{{- define "data-alchemy.dagsterDeployment" -}}
{{- $instance := dict "root" .root "component" "dagster" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "data-alchemy.metadata" . | nindent 2 }}
spec:
  replicas: 1
  strategy:
    {{- /* Two daemons at once would launch every schedule twice. */}}
    type: {{ ternary "Recreate" "RollingUpdate" (eq .component "daemon") }}
  selector:
    matchLabels:
      {{- include "data-alchemy.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "data-alchemy.selectorLabels" . | nindent 8 }}
      annotations:
        checksum/dagster: {{ include (print .root.Template.BasePath "/dagster-config.yaml") .root | sha256sum }}
        {{- if .loadsCode }}
        checksum/models: {{ .root.Values.models.catalog | sha256sum }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "data-alchemy.componentName" (dict "root" .root "component" (ternary "runs" "dagster" .loadsCode)) }}
      automountServiceAccountToken: {{ not .loadsCode }}
      enableServiceLinks: false
      {{- with include "data-alchemy.pullSecrets" .root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      securityContext:
        {{- include "data-alchemy.podSecurity" (dict "user" (include "data-alchemy.appUser" .root)) | nindent 8 }}
      {{- with include "data-alchemy.scheduling" (dict "root" .root "gpus" 0) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "data-alchemy.image" (dict "root" .root "image" "pipeline") }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: {{ .command | toJson }}
          {{- with .port }}
          ports:
            - name: main
              containerPort: {{ . }}
          {{- end }}
          env:
            - name: DAGSTER_HOME
              value: /opt/dagster/home
            {{- if .loadsCode }}
            {{- include "data-alchemy.dagsterEnv" .root | nindent 12 }}
            {{- else }}
            - name: HOME
              value: /tmp
            {{- include "data-alchemy.instanceEnv" .root | nindent 12 }}
            {{- end }}
          {{- .probes | nindent 10 }}
          resources:
            {{- toYaml .resources | nindent 12 }}
          securityContext:
            {{- include "data-alchemy.containerSecurity" .root | nindent 12 }}
          volumeMounts:
            {{- if .loadsCode }}
            {{- include "data-alchemy.volumeMounts" .root | nindent 12 }}
            {{- else }}
            - name: tmp
              mountPath: /tmp
            {{- end }}
            - name: home
              mountPath: /opt/dagster/home
            - name: dagster
              mountPath: /opt/dagster/home/dagster.yaml
              subPath: dagster.yaml
              readOnly: true
            - name: dagster
              mountPath: /opt/dagster/workspace
              readOnly: true
      volumes:
        {{- if .loadsCode }}
        {{- include "data-alchemy.volumes" (dict "root" .root "tmpSize" "2Gi" "cacheSize" "2Gi") | nindent 8 }}
        {{- else }}
        - name: tmp
          emptyDir:
            sizeLimit: 1Gi
        {{- end }}
        - name: home
          emptyDir:
            sizeLimit: 1Gi
        - name: dagster
          configMap:
            name: {{ include "data-alchemy.componentName" $instance }}
{{- end -}}

{{/* A Service in front of one component: (dict "root" $ "component" C "port" 80 "type" "ClusterIP" "headless" false). */}}
{{- define "data-alchemy.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "data-alchemy.metadata" . | nindent 2 }}
spec:
  type: {{ default "ClusterIP" .type }}
  {{- if .headless }}
  clusterIP: None
  {{- end }}
  selector:
    {{- include "data-alchemy.selectorLabels" . | nindent 4 }}
  ports:
    - name: {{ default "main" .portName }}
      port: {{ .port }}
      targetPort: main
{{- end -}}
