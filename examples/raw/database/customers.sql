--
-- PostgreSQL database dump
--

-- Dumped from database version 16.4
-- Dumped by pg_dump version 16.4

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

CREATE TABLE public.customers (
    id integer NOT NULL,
    name text NOT NULL,
    city text,
    email text,
    phone text,
    plan text NOT NULL,
    since date,
    remark text
);

ALTER TABLE public.customers OWNER TO ledger;

COPY public.customers (id, name, city, email, phone, plan, since, remark) FROM stdin;
1	Polarfrukt AB	Malmö	logistik@polarfrukt.example	+46 40 555 0110	gold	2023-04-01	Bananas and citrus. Wants carbon dioxide alarms by phone, not by text.
2	Nordkyl Transport	Luleå	dispatch@nordkyl.example	+46 920 555 0121	silver	2022-09-15	Runs 118 trailers north of the Arctic Circle. Contract price is frozen until the end of 2027.
3	Fjordfisk AS	Ålesund	ops@fjordfisk.example	\N	gold	2024-01-10	Fresh salmon to Paris.\nTolerance is 10 minutes instead of the default.
4	Medivia Pharma Logistics	Leiden	quality@medivia.example	+31 71 555 0133	platinum	2024-06-01	Vaccines. Audit every March; needs calibration certificates\tper tag.
5	Haiyun Cold Chain	Qingdao	service@haiyunleng.example	+86 532 5550 0144	gold	2025-02-20	Operates the four cold stores in the bonded zone. Invoices in CNY.
6	Gelato Brenta	Padova	info@gelatobrenta.example	\N	bronze	2025-07-07	Seasonal: the contract sleeps from November to February at 20 percent of the price.
7	Verdano Fresh	Almería	trafico@verdano.example	+34 950 55 01 55	silver	2023-11-30	Lost the load of strawberries on 27 May 2026; path of the old FTP drop is C:\\drop\\verdano.
8	Kestrel Vaccines Trust	Nairobi	\N	+254 20 555 0166	charity	2026-03-12	Pays the cost of the hardware only. Data must stay in Kenya or the EU.
\.

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (id);

--
-- PostgreSQL database dump complete
--
